// Resolution by direction, from the half maps, and how the particles sample directions.
process DIRECTIONS {
    tag "${meta.label}${job.name - '_result'}"
    label 'cpu_single'
    memory { 1.GB * job.memory * task.attempt }
    containerOptions { meta.binds }
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copy', overwrite: 'deep'

    input:
    tuple val(meta), val(job), path(imported, stageAs: 'Import/*'), path(ctf_refine, stageAs: 'CtfRefine/*'),
        path(polish, stageAs: 'Polish/*'), path(particles, stageAs: 'Select/*'), path(maps, stageAs: 'Reconstruct/*'),
        path(mask, stageAs: 'MaskCreate/*')

    output:
    tuple val(meta), path("Directions/${job.name}"), emit: job

    script:
    """
    py2rely task directions Directions/${job.name} --maps ${maps} --mask ${mask}/mask.mrc --particles ${particles}/particles.star \\
        --tomograms ${job.tomograms} --symmetry ${job.settings.symmetry}
    """

    stub:
    """
    py2rely task stub Directions/${job.name} run.out
    """
}
