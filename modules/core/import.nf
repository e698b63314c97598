// One data set's tables under the names that every later step uses, and links to its stacks.
include { json_word ; word } from '../../subworkflows/values'

process IMPORT {
    tag "${meta.label}tilt_series"
    label 'core'
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copyNoFollow', overwrite: true // the stacks stay links

    input:
    tuple val(meta), val(source), path(files, stageAs: 'inputs/?/*')

    output:
    tuple val(meta), path('Import/tilt_series'), path('Select/input'), emit: job

    script:
    """
    py2rely task import --project ${word(source.launch_dir)} --particles ${word(source.particles)} \\
        --tilt-series ${word(source.tilt_series)} ${source.motion ? "--motion ${word(source.motion)} " : ''}\\
        --symmetry ${word(source.symmetry)} --bfactor-per-dose ${source.bfactor_per_dose} \\
        --lost ${json_word(source.lost)} --output .
    """
}
