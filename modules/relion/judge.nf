// A step of polishing put to the test: reconstructed and post-processed within the same mask, and judged against the
// best map so far. A step that leads to no map is rejected; it does not end the run. Of many tilt series the sums of groups
// are added up; where there are none, the program says what is wrong.
include { json_word } from '../../subworkflows/values'

process JUDGE {
    tag "${meta.label}${job.tag}"
    label 'cpu_parallel'
    cpus { job.level.reconstruct.ranks * job.level.reconstruct.threads }
    memory { 1.GB * job.level.reconstruct.memory * task.attempt }
    containerOptions { meta.binds }
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copy', overwrite: 'deep'

    input:
    tuple val(meta), val(job), path(imported, stageAs: 'Import/*'), path(ctf_refine, stageAs: 'CtfRefine/*'),
        path(polish, stageAs: 'Polish/*'), path(particles, stageAs: 'Select/*'), path(mask, stageAs: 'MaskCreate/*'),
        path(best, stageAs: 'best/*'), path(parts, stageAs: 'groups/?/*')

    output:
    tuple val(meta), path("Reconstruct/${job.name}"), path("PostProcess/${job.name}"), emit: job

    script:
    def maps = "Reconstruct/${job.name}"
    def directory = "PostProcess/${job.name}"
    def level = job.level
    def settings = level.reconstruct
    // As in RECONSTRUCT, sums are made into maps by one process.
    def mpi = settings.ranks > 1 && !parts
    def threads = mpi ? settings.threads : settings.ranks * settings.threads
    """
    ${parts ? "py2rely task merge-sums ${maps} --groups groups --particles ${particles}/particles.star --tomograms ${job.series.tomograms} || true" : ''}
    py2rely task relion --may-fail ${maps} -- ${mpi ? "mpirun -n ${settings.ranks} " : ''}relion_tomo_reconstruct_particle${mpi ? '_mpi' : ''} \\
        --t ${job.series.tomograms} ${job.series.motion ? "--mot ${job.series.motion}" : ''} --p ${particles}/particles.star --o ${maps}/ \\
        --b ${settings.box} --crop ${settings.crop} --bin ${settings.binning} --sym ${settings.symmetry} \\
        --j ${threads} --j_out ${threads} --j_in 1 ${settings.options} ${parts ? '--only_do_unfinished' : ''}
    py2rely task relion --may-fail ${directory} -- relion_postprocess --i ${maps}/half1.mrc --mask ${mask}/mask.mrc \\
        --o ${directory}/postprocess \$(py2rely task randomise-from ${maps}) ${level.postprocess.options}
    py2rely task judge ${directory} --step ${json_word(job.note)} --maps ${maps} --mask ${mask}/mask.mrc \\
        --box ${level.size} --pixel-size ${level.pixel_size} --best ${best} --particles ${particles}/particles.star
    """

    stub:
    """
    py2rely task stub Reconstruct/${job.name} merged.mrc half1.mrc half2.mrc
    py2rely task stub PostProcess/${job.name} postprocess.star postprocess.mrc --numbers ${json_word(
        job.note + [accepted: true, judgement: 'better', why: 'a stub', particles: "${particles}/particles.star".toString()])}
    """
}
