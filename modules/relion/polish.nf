// Alignment of every tilt image, and motion of every particle, against the current map.
include { json_word } from '../../subworkflows/values'

process POLISH {
    tag "${meta.label}${job.name}${meta.group ? " ${meta.group}" : ''}"
    label 'cpu_parallel'
    cpus { job.settings.ranks * job.settings.threads }
    memory { 1.GB * job.settings.memory * task.attempt }
    containerOptions { meta.binds }
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copy', overwrite: 'deep'

    input:
    tuple val(meta), val(job), path(imported, stageAs: 'Import/*'), path(ctf_refine, stageAs: 'CtfRefine/*'),
        path(polish, stageAs: 'Polish/*'), path(particles, stageAs: 'Select/*'), path(reconstruction, stageAs: 'Reconstruct/*'),
        path(mask, stageAs: 'MaskCreate/*'), path(postprocess, stageAs: 'PostProcess/*'), path(parts, stageAs: 'groups/?/*')

    output:
    tuple val(meta), path("Polish/${job.name}"), path("Select/${job.name}_polish"), emit: job

    script:
    def directory = "Polish/${job.name}"
    def settings = job.settings
    def lost = "--lost ${json_word(job.lost)}${meta.group ? ' --group' : ''}"
    def mpi = settings.ranks > 1
    """
    ${parts ? "py2rely task merge-temp ${directory} --groups groups --particles ${particles}/particles.star" : ''}
    py2rely task relion ${lost} ${directory} -- ${mpi ? "mpirun -n ${settings.ranks} " : ''}relion_tomo_align${mpi ? '_mpi' : ''} \\
        --p ${particles}/particles.star --t ${job.series.tomograms} ${job.series.motion ? "--mot ${job.series.motion}" : ''} \\
        --ref1 ${reconstruction}/half1.mrc --ref2 ${reconstruction}/half2.mrc --mask ${mask}/mask.mrc \\
        --fsc ${postprocess}/postprocess.star --theme classic --o ${directory}/ --b ${settings.box} --j ${settings.threads} \\
        ${settings.options} ${parts ? '--only_do_unfinished' : ''}
    py2rely task check-polish ${directory} --tomograms ${job.series.tomograms} --particles ${particles}/particles.star \\
        --output Select/${job.name}_polish
    """

    stub:
    """
    py2rely task stub Polish/${job.name} tomograms.star motion.star
    py2rely task stub Select/${job.name}_polish particles.star
    """
}
