// The average of particles as they are oriented, from the tilt series' own images, with its half maps.
process RECONSTRUCT {
    tag "${meta.id} bin${settings.binning} ${purpose}"
    label 'cpu_parallel'
    containerOptions { meta.binds }
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copy'

    input:
    tuple val(meta), val(purpose), val(settings), path(import_job, stageAs: 'Import/*'), path(particles, stageAs: 'Select/*')

    output:
    tuple val(meta), path("Reconstruct/bin${settings.binning}_${purpose}"), emit: job

    script:
    def job = "Reconstruct/bin${settings.binning}_${purpose}"
    def mpi = settings.ranks > 1
    """
    py2rely task relion ${job} -- ${mpi ? "mpirun -n ${settings.ranks} " : ''}relion_tomo_reconstruct_particle${mpi ? '_mpi' : ''} \\
        --t Import/tilt_series/tomograms.star --p ${particles}/particles.star --o ${job}/ \\
        --b ${settings.box} --crop ${settings.crop} --bin ${settings.binning} --sym ${settings.symmetry} \\
        --j ${settings.threads} --j_out ${settings.threads} --j_in 1 ${settings.options}
    py2rely task check-reconstruct ${job} --particles ${particles}/particles.star \\
        --box ${settings.crop > 0 ? settings.crop : settings.box} --pixel-size ${settings.pixel_size}
    """

    stub:
    """
    py2rely task stub Reconstruct/bin${settings.binning}_${purpose} merged.mrc half1.mrc half2.mrc
    """
}
