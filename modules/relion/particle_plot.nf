// Resolution of the averages of ever fewer particles, within the best map's mask, and the line through them.
process PARTICLE_PLOT {
    tag "${meta.label}${job.name - '_result'}"
    label 'cpu_single'
    memory { 1.GB * job.memory * task.attempt }
    containerOptions { meta.binds }
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copy', overwrite: 'deep'

    input:
    tuple val(meta), val(job), path(particles, stageAs: 'whole/*'), path(mask, stageAs: 'MaskCreate/*'), path(best, stageAs: 'PostProcess/*'),
        path(sets, stageAs: 'Select/*'), path(maps, stageAs: 'Reconstruct/*')

    output:
    tuple val(meta), path("ParticlePlot/${job.name}"), emit: job

    script:
    def directory = "ParticlePlot/${job.name}"
    """
    for part in Reconstruct/*; do
        py2rely task relion --may-fail ${directory} -- relion_postprocess --i \$part/half1.mrc --mask ${mask}/mask.mrc \\
            --o ${directory}/\$(basename \$part) \$(py2rely task randomise-from \$part) ${job.settings.options}
    done
    py2rely task particle-plot ${directory} --sets Select --best ${best} --particles ${particles}/particles.star \\
        --box ${job.size} --pixel-size ${job.pixel_size}
    """

    stub:
    """
    py2rely task stub ParticlePlot/${job.name} run.out
    """
}
