// The particle set that goes on from a refinement: a new file, without duplicates where that is asked for.
process SELECT {
    tag "${meta.label}${job.name}"
    label 'core'
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copy', overwrite: 'deep'

    input:
    tuple val(meta), val(job), path(refinement, stageAs: 'Refine3D/*')

    output:
    tuple val(meta), path("Select/${job.name}"), emit: job

    script:
    """
    py2rely task select ${refinement}/run_data.star --distance ${job.distance} \\
        --output Select/${job.name}
    """

    stub:
    """
    py2rely task stub Select/${job.name} particles.star
    """
}
