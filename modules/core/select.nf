// The particle set that goes on from a refinement: a new file, without duplicates where that is asked for.
process SELECT {
    tag "${meta.id} bin${binning}"
    label 'core'

    input:
    tuple val(meta), val(binning), val(settings), path(refinement, stageAs: 'Refine3D/*')

    output:
    tuple val(meta), path("Select/bin${binning}"), emit: job
    tuple val(meta), path("Select/bin${binning}/job.json"), emit: numbers

    script:
    """
    py2rely task select Refine3D/${refinement.name}/run_data.star --distance ${settings.distance} \\
        --output Select/bin${binning}
    """

    stub:
    """
    py2rely task stub Select/bin${binning} particles.star
    """
}
