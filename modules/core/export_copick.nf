// The final particles as picks of a copick project. The run's results are complete by then; a failure here is the run's, too.
include { json_word } from '../../subworkflows/values'

process EXPORT_COPICK {
    tag "${meta.label}copick"
    label 'core'
    containerOptions { meta.binds }
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copy', overwrite: 'deep'
    debug true

    input:
    tuple val(meta), val(target), path(particles, stageAs: 'input/*'), path(tilt_series, stageAs: 'series/*')

    output:
    path 'copick_export.json'

    script:
    """
    printf %s ${json_word(target)} > target.json
    py2rely task export-copick target.json --particles ${particles} --tilt-series ${tilt_series} --output copick_export.json
    """

    stub:
    """
    printf %s ${json_word(target)} > copick_export.json
    """
}
