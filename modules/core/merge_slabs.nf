// Slabs of groups of tilt series, put together as one job.
process MERGE_SLABS {
    tag "${meta.label}${job.name}"
    label 'core'
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copy', overwrite: 'deep'

    input:
    tuple val(meta), val(job), path(particles, stageAs: 'Select/*'), path(parts, stageAs: 'groups/?/*')

    output:
    tuple val(meta), path("Extract/${job.name}"), emit: job

    script:
    """
    py2rely task merge-slabs Extract/${job.name} --groups groups --particles ${particles}/particles.star
    """

    stub:
    """
    py2rely task stub Extract/${job.name} particles_relion.star
    """
}
