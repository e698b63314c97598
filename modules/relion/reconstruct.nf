// The average of particles as they are oriented, from the tilt series' own images, with its half maps. A group of many tilt
// series is only summed up; the sums of all groups make one map.
process RECONSTRUCT {
    tag "${meta.id} ${name}${meta.group ? " ${meta.group}" : ''}"
    label 'cpu_parallel'
    cpus { settings.ranks * settings.threads }
    memory { 1.GB * settings.memory * task.attempt }
    containerOptions { meta.binds }
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copy'

    input:
    tuple val(meta), val(name), val(settings), val(series), path(import_job, stageAs: 'Import/*'),
        path(ctf_refine, stageAs: 'CtfRefine/*'), path(polish, stageAs: 'Polish/*'), path(particles, stageAs: 'Select/*'),
        path(groups, stageAs: 'groups/?/*')

    output:
    tuple val(meta), path("Reconstruct/${name}"), emit: job

    script:
    def job = "Reconstruct/${name}"
    // The sums of a group, and what is made of them, are those of one process, not of MPI's ranks.
    def mpi = settings.ranks > 1 && !groups && !meta.group
    def threads = mpi ? settings.threads : settings.ranks * settings.threads
    """
    ${groups ? "py2rely task merge-sums ${job} --groups groups --tomograms ${series.tomograms}" : ''}
    py2rely task relion ${job} -- ${mpi ? "mpirun -n ${settings.ranks} " : ''}relion_tomo_reconstruct_particle${mpi ? '_mpi' : ''} \\
        --t ${series.tomograms} ${series.motion ? "--mot ${series.motion}" : ''} --p ${particles}/particles.star --o ${job}/ \\
        --b ${settings.box} --crop ${settings.crop} --bin ${settings.binning} --sym ${settings.symmetry} \\
        --j ${threads} --j_out ${threads} --j_in 1 ${settings.options} \\
        ${groups ? '--only_do_unfinished' : ''} ${meta.group ? '--no_recon' : ''}
    ${meta.group ? '' : "py2rely task check-reconstruct ${job} --particles ${particles}/particles.star --box ${settings.crop > 0 ? settings.crop : settings.box} --pixel-size ${settings.pixel_size}"}
    """

    stub:
    """
    py2rely task stub Reconstruct/${name} ${meta.group ? 'run.out' : 'merged.mrc half1.mrc half2.mrc'}
    """
}
