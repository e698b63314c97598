// The particle set that goes on from a refinement: a new file, without duplicates where that is asked for.
process SELECT {
    tag "${meta.id} ${name}"
    label 'core'
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copy'

    input:
    tuple val(meta), val(name), val(settings), path(refinement, stageAs: 'Refine3D/*')

    output:
    tuple val(meta), path("Select/${name}"), emit: job

    script:
    """
    py2rely task select ${refinement}/run_data.star --distance ${settings.distance} \\
        --output Select/${name}
    """

    stub:
    """
    py2rely task stub Select/${name} particles.star
    """
}
