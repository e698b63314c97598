// Extracted groups of tilt series, put together as one job.
process MERGE_EXTRACT {
    tag "${meta.id} ${name}"
    label 'core'
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'symlink'

    input:
    tuple val(meta), val(name), val(settings), path(particles, stageAs: 'Select/*'), path(groups, stageAs: 'groups/?/*')

    output:
    tuple val(meta), path("Extract/${name}"), emit: job

    script:
    def job = "Extract/${name}"
    """
    py2rely task merge-extract ${job} --groups groups
    py2rely task check-extract ${job} --particles ${particles}/particles.star \\
        --box ${settings.crop > 0 ? settings.crop : settings.box} --pixel-size ${settings.pixel_size}
    """

    stub:
    """
    py2rely task stub Extract/${name} particles.star
    """
}
