// Pseudo-subtomograms at one binning. The new particle set has its shifts moved into the coordinates.
process EXTRACT {
    tag "${meta.id} bin${settings.binning}"
    label 'cpu_parallel'
    containerOptions { meta.binds }
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'symlink'

    input:
    tuple val(meta), val(settings), path(import_job, stageAs: 'Import/*'), path(particles, stageAs: 'Select/*')

    output:
    tuple val(meta), path("Extract/bin${settings.binning}"), emit: job

    script:
    def job = "Extract/bin${settings.binning}"
    def mpi = settings.ranks > 1
    """
    py2rely task relion ${job} -- ${mpi ? "mpirun -n ${settings.ranks} " : ''}relion_tomo_subtomo${mpi ? '_mpi' : ''} \\
        --t Import/tilt_series/tomograms.star --p ${particles}/particles.star --o ${job}/ \\
        --b ${settings.box} --crop ${settings.crop} --bin ${settings.binning} --j ${settings.threads} ${settings.options}
    py2rely task check-extract ${job} --particles ${particles}/particles.star \\
        --box ${settings.crop > 0 ? settings.crop : settings.box} --pixel-size ${settings.pixel_size}
    """

    stub:
    """
    py2rely task stub Extract/bin${settings.binning} particles.star
    """
}
