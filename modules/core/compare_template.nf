// Whether the best map knows more than the template, beyond the low-pass to which it was given.
include { json_word } from '../../subworkflows/values'

process COMPARE_TEMPLATE {
    tag "${meta.label}${job.name - '_result'}"
    label 'cpu_single'
    memory { 1.GB * job.memory * task.attempt }
    containerOptions { meta.binds }
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copy', overwrite: 'deep'

    input:
    tuple val(meta), val(job), path(template, stageAs: 'template/*'), path(maps, stageAs: 'Reconstruct/*'),
        path(mask, stageAs: 'MaskCreate/*'), path(best, stageAs: 'PostProcess/*')

    output:
    tuple val(meta), path("Template/${job.name}"), emit: job

    script:
    """
    py2rely task compare-template Template/${job.name} template/* --maps ${maps} --mask ${mask}/mask.mrc \\
        --postprocess ${best} --settings ${json_word(job.settings)}
    """

    stub:
    """
    py2rely task stub Template/${job.name} run.out
    """
}
