// The average of particles as they are oriented, from the tilt series' own images, with its half maps. A group of many tilt
// series is only summed up; the sums of all groups make one map.
include { json_word } from '../../subworkflows/values'

process RECONSTRUCT {
    tag "${meta.label}${job.name - '_result'}${meta.group ? " ${meta.group}" : ''}"
    label 'cpu_parallel'
    cpus { job.settings.ranks * job.settings.threads }
    memory { 1.GB * job.settings.memory * task.attempt }
    containerOptions { meta.binds }
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copy', overwrite: 'deep'

    input:
    tuple val(meta), val(job), path(imported, stageAs: 'Import/*'), path(ctf_refine, stageAs: 'CtfRefine/*'),
        path(polish, stageAs: 'Polish/*'), path(particles, stageAs: 'Select/*'), path(parts, stageAs: 'groups/?/*')

    output:
    tuple val(meta), path("Reconstruct/${job.name}"), emit: job

    script:
    def directory = "Reconstruct/${job.name}"
    def settings = job.settings
    // The sums of a group, and what is made of them, are those of one process, not of MPI's ranks.
    def lost = job.may_fail ? '--may-fail' : "--lost ${json_word(job.lost)}${meta.group ? ' --group' : ''}"
    def mpi = settings.ranks > 1 && !parts && !meta.group
    def threads = mpi ? settings.threads : settings.ranks * settings.threads
    """
    ${parts ? "py2rely task merge-sums ${directory} --groups groups --particles ${particles}/particles.star --tomograms ${job.series.tomograms}" : ''}
    py2rely task relion ${lost} ${directory} -- ${mpi ? "mpirun -n ${settings.ranks} " : ''}relion_tomo_reconstruct_particle${mpi ? '_mpi' : ''} \\
        --t ${job.series.tomograms} ${job.series.motion ? "--mot ${job.series.motion}" : ''} --p ${particles}/particles.star --o ${directory}/ \\
        --b ${settings.box} --crop ${settings.crop} --bin ${settings.binning} --sym ${settings.symmetry} \\
        --j ${threads} --j_out ${threads} --j_in 1 ${settings.options} \\
        ${parts ? '--only_do_unfinished' : ''} ${meta.group ? '--no_recon' : ''}
    ${meta.group ? '' : "py2rely task check-reconstruct ${directory} --particles ${particles}/particles.star --box ${settings.crop > 0 ? settings.crop : settings.box} --pixel-size ${settings.pixel_size}"}
    """

    stub:
    """
    py2rely task stub Reconstruct/${job.name} ${meta.group ? 'run.out' : 'merged.mrc half1.mrc half2.mrc'}
    """
}
