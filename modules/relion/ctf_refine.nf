// Defocus, scale and aberrations against the current map; tables that cannot be used are noted, not published as good.
include { json_word } from '../../subworkflows/values'

process CTF_REFINE {
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
    tuple val(meta), path("CtfRefine/${job.name}"), path("Select/${job.name}_ctf"), emit: job

    script:
    def directory = "CtfRefine/${job.name}"
    def settings = job.settings
    def lost = "--lost ${json_word(job.lost)}${meta.group ? ' --group' : ''}"
    def mpi = settings.ranks > 1
    """
    ${parts ? "py2rely task merge-temp ${directory} --groups groups --particles ${particles}/particles.star" : ''}
    py2rely task relion ${lost} ${directory} -- ${mpi ? "mpirun -n ${settings.ranks} " : ''}relion_tomo_refine_ctf${mpi ? '_mpi' : ''} \\
        --p ${particles}/particles.star --t ${job.series.tomograms} ${job.series.motion ? "--mot ${job.series.motion}" : ''} \\
        --ref1 ${reconstruction}/half1.mrc --ref2 ${reconstruction}/half2.mrc --mask ${mask}/mask.mrc \\
        --fsc ${postprocess}/postprocess.star --theme classic --o ${directory}/ --b ${settings.box} --j ${settings.threads} \\
        ${settings.options} ${parts ? '--only_do_unfinished' : ''}
    py2rely task check-ctf-refine ${directory} --tomograms ${job.series.tomograms} --particles ${particles}/particles.star \\
        --output Select/${job.name}_ctf
    """

    stub:
    """
    py2rely task stub CtfRefine/${job.name} tomograms.star
    py2rely task stub Select/${job.name}_ctf particles.star
    """
}
