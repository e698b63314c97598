// One data set's tables under the names that every later step uses, and links to its stacks.
process IMPORT {
    tag "${meta.id}"
    label 'core'
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copyNoFollow' // the stacks stay links

    input:
    tuple val(meta), val(source), path(files, stageAs: 'inputs/?/*')

    output:
    tuple val(meta), path('Import/tilt_series'), path('Select/input'), emit: job

    script:
    """
    py2rely task import --project '${source.launch_dir}' --particles '${source.particles}' \\
        --tilt-series '${source.tilt_series}' ${source.motion ? "--motion '${source.motion}' " : ''}\\
        --symmetry ${source.symmetry} --output .
    """
}
