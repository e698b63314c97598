// Alignment of every tilt image, and motion of every particle, against the current map.
process POLISH {
    tag "${meta.id} ${name}"
    label 'cpu_parallel'
    cpus { settings.ranks * settings.threads }
    memory { 1.GB * settings.memory * task.attempt }
    containerOptions { meta.binds }
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copy'

    input:
    tuple val(meta), val(name), val(settings), val(series), path(import_job, stageAs: 'Import/*'),
        path(ctf_refine, stageAs: 'CtfRefine/*'), path(polish, stageAs: 'Polish/*'), path(particles, stageAs: 'Select/*'),
        path(reconstruction, stageAs: 'Reconstruct/*'), path(mask, stageAs: 'MaskCreate/*'),
        path(postprocess, stageAs: 'PostProcess/*'), path(groups, stageAs: 'groups/?/*')

    output:
    tuple val(meta), path("Polish/${name}"), path("Select/${name}_polish"), emit: job

    script:
    def job = "Polish/${name}"
    def mpi = settings.ranks > 1
    """
    ${groups ? "py2rely task merge-temp ${job} --groups groups" : ''}
    py2rely task relion ${job} -- ${mpi ? "mpirun -n ${settings.ranks} " : ''}relion_tomo_align${mpi ? '_mpi' : ''} \\
        --p ${particles}/particles.star --t ${series.tomograms} ${series.motion ? "--mot ${series.motion}" : ''} \\
        --ref1 ${reconstruction}/half1.mrc --ref2 ${reconstruction}/half2.mrc --mask ${mask}/mask.mrc \\
        --fsc ${postprocess}/postprocess.star --theme classic --o ${job}/ --b ${settings.box} --j ${settings.threads} \\
        ${settings.options} ${groups ? '--only_do_unfinished' : ''}
    py2rely task check-polish ${job} --tomograms ${series.tomograms} --particles ${particles}/particles.star \\
        --output Select/${name}_polish
    """

    stub:
    """
    py2rely task stub Polish/${name} tomograms.star motion.star
    py2rely task stub Select/${name}_polish particles.star
    """
}
