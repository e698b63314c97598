// Which picks go on from a 2D classification: the table of classes, and the picks as they were; with manual selection, only
// when classes are named.
include { json_word } from '../../subworkflows/values'

process SELECT_SLABS {
    tag "${meta.label}${job.name}"
    label 'core'
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copy', overwrite: 'deep'

    input:
    tuple val(meta), val(job), path(slabs, stageAs: 'Extract/*'), path(classification, stageAs: 'Class2D/*')

    output:
    tuple val(meta), path("Select/${job.name}"), emit: job

    script:
    """
    py2rely task select-slabs Select/${job.name} --class-job ${classification} --slabs ${slabs} --diameter ${job.diameter} \\
        --choice ${json_word(job.choice)} ${job.keep_not_judged ? '--keep-not-judged' : ''}
    """

    stub:
    """
    py2rely task stub Select/${job.name} classes.txt ${job.choice.selection == 'auto' || job.choice.keep ? 'particles.star slabs.star' : ''}
    """
}
