// One data set's tables under the names that every later step uses, and links to its stacks.
process IMPORT {
    tag "${meta.id}"
    label 'core'

    input:
    tuple val(meta), val(source), path(files, stageAs: 'inputs/?/*')

    output:
    tuple val(meta), path('Import/tilt_series'), path('Select/input'), emit: job
    tuple val(meta), path('Import/tilt_series/job.json'), emit: numbers

    script:
    """
    py2rely task import --project '${source.project}' --particles '${source.particles}' \\
        --tilt-series '${source.tilt_series}' --output .
    """
}
