// The average of particles as they are oriented, from the tilt series' own images, with its half maps.
process RECONSTRUCT {
    tag "${meta.id} ${name}"
    label 'cpu_parallel'
    cpus { settings.ranks * settings.threads }
    memory { 1.GB * settings.memory * task.attempt }
    containerOptions { meta.binds }
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copy'

    input:
    tuple val(meta), val(name), val(settings), val(series), path(import_job, stageAs: 'Import/*'),
        path(ctf_refine, stageAs: 'CtfRefine/*'), path(polish, stageAs: 'Polish/*'), path(particles, stageAs: 'Select/*')

    output:
    tuple val(meta), path("Reconstruct/${name}"), emit: job

    script:
    def job = "Reconstruct/${name}"
    def mpi = settings.ranks > 1
    """
    py2rely task relion ${job} -- ${mpi ? "mpirun -n ${settings.ranks} " : ''}relion_tomo_reconstruct_particle${mpi ? '_mpi' : ''} \\
        --t ${series.tomograms} ${series.motion ? "--mot ${series.motion}" : ''} --p ${particles}/particles.star --o ${job}/ \\
        --b ${settings.box} --crop ${settings.crop} --bin ${settings.binning} --sym ${settings.symmetry} \\
        --j ${settings.threads} --j_out ${settings.threads} --j_in 1 ${settings.options}
    py2rely task check-reconstruct ${job} --particles ${particles}/particles.star \\
        --box ${settings.crop > 0 ? settings.crop : settings.box} --pixel-size ${settings.pixel_size}
    """

    stub:
    """
    py2rely task stub Reconstruct/${name} merged.mrc half1.mrc half2.mrc
    """
}
