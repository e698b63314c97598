// A step of polishing put to the test: reconstructed and post-processed within the same mask, and judged against the
// best map so far. A step that leads to no map is rejected; it does not end the run.
process EVALUATE {
    tag "${meta.id} ${name}"
    label 'cpu_parallel'
    cpus { level.reconstruct.ranks * level.reconstruct.threads }
    memory { 1.GB * level.reconstruct.memory * task.attempt }
    containerOptions { meta.binds }
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copy'

    input:
    tuple val(meta), val(name), val(step), val(level), val(series), path(import_job, stageAs: 'Import/*'),
        path(ctf_refine, stageAs: 'CtfRefine/*'), path(polish, stageAs: 'Polish/*'), path(particles, stageAs: 'Select/*'),
        path(mask, stageAs: 'MaskCreate/*'), path(best, stageAs: 'best/*')

    output:
    tuple val(meta), path("Reconstruct/${name}"), path("PostProcess/${name}"), emit: job

    script:
    def maps = "Reconstruct/${name}"
    def job = "PostProcess/${name}"
    def settings = level.reconstruct
    def mpi = settings.ranks > 1
    """
    py2rely task relion --may-fail ${maps} -- ${mpi ? "mpirun -n ${settings.ranks} " : ''}relion_tomo_reconstruct_particle${mpi ? '_mpi' : ''} \\
        --t ${series.tomograms} ${series.motion ? "--mot ${series.motion}" : ''} --p ${particles}/particles.star --o ${maps}/ \\
        --b ${settings.box} --crop ${settings.crop} --bin ${settings.binning} --sym ${settings.symmetry} \\
        --j ${settings.threads} --j_out ${settings.threads} --j_in 1 ${settings.options}
    py2rely task relion --may-fail ${job} -- relion_postprocess --i ${maps}/half1.mrc --mask ${mask}/mask.mrc \\
        --o ${job}/postprocess \$(py2rely task randomise-from ${maps}) ${level.postprocess.options}
    py2rely task judge ${job} --step '${groovy.json.JsonOutput.toJson(step)}' --maps ${maps} --mask ${mask}/mask.mrc \\
        --box ${level.size} --pixel-size ${level.pixel_size} --best ${best} --particles ${particles}/particles.star
    """

    stub:
    """
    py2rely task stub Reconstruct/${name} merged.mrc half1.mrc half2.mrc
    py2rely task stub PostProcess/${name} postprocess.star postprocess.mrc --numbers '${groovy.json.JsonOutput.toJson(
        step + [accepted: true, judgement: 'better', why: 'a stub', particles: "${particles}/particles.star".toString()])}'
    """
}
