// Pseudo-subtomograms at one binning. The new particle set has its shifts moved into the coordinates.
process EXTRACT {
    tag "${meta.id} ${name}"
    label 'cpu_parallel'
    cpus { settings.ranks * settings.threads }
    memory { 1.GB * settings.memory * task.attempt }
    containerOptions { meta.binds }
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'symlink'

    input:
    tuple val(meta), val(name), val(settings), val(series), path(import_job, stageAs: 'Import/*'),
        path(ctf_refine, stageAs: 'CtfRefine/*'), path(polish, stageAs: 'Polish/*'), path(particles, stageAs: 'Select/*')

    output:
    tuple val(meta), path("Extract/${name}"), emit: job

    script:
    def job = "Extract/${name}"
    def mpi = settings.ranks > 1
    """
    py2rely task relion ${job} -- ${mpi ? "mpirun -n ${settings.ranks} " : ''}relion_tomo_subtomo${mpi ? '_mpi' : ''} \\
        --t ${series.tomograms} ${series.motion ? "--mot ${series.motion}" : ''} --p ${particles}/particles.star --o ${job}/ \\
        --b ${settings.box} --crop ${settings.crop} --bin ${settings.binning} --j ${settings.threads} ${settings.options}
    py2rely task check-extract ${job} --particles ${particles}/particles.star \\
        --box ${settings.crop > 0 ? settings.crop : settings.box} --pixel-size ${settings.pixel_size}
    """

    stub:
    """
    py2rely task stub Extract/${name} particles.star
    """
}
