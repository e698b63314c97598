// Which classes go on: the table, its picture, the page on which they are chosen by looking, and the particle set; with
// manual selection, that only when classes are named.
include { json_word ; word } from '../../subworkflows/values'

process SELECT_CLASSES {
    tag "${meta.label}${job.name}"
    label 'core'
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copy', overwrite: 'deep'

    input:
    tuple val(meta), val(job), path(classifications, stageAs: 'Class3D/*'), path(tests, stageAs: 'ClassTest/*'),
        path(mask, stageAs: 'MaskCreate/*')

    output:
    tuple val(meta), path("Select/${job.name}_classes"), emit: job
    tuple val(meta), path("Select/${job.name}_reference"), emit: reference, optional: true

    script:
    """
    py2rely task select-classes ${classifications} --tests ClassTest --mask ${mask}/mask.mrc --diameter ${job.diameter} \\
        --choice ${json_word(job.choice)} ${job.of_classes ? "--of-classes ${job.of_classes}" : ''} ${meta.project ? "--dataset ${word(meta.id)}" : ''} \\
        --output Select/${job.name}_classes --reference Select/${job.name}_reference
    """

    stub:
    """
    py2rely task stub Select/${job.name}_classes particles.star
    ${job.choice.selection == 'auto' || job.choice.keep ? "py2rely task stub Select/${job.name}_reference particles.star" : ''}
    """
}
