// Whether orientations follow from the images: of some particles, each half of the tilts is searched alone, globally, against
// the map of the other half set: that of the refinement, as an average has another scale. Their images are gone when the task is
// done.
include { files_of } from '../../subworkflows/states'
include { json } from '../../subworkflows/values'

process ORIENTATIONS {
    tag "${meta.label}${job.name}"
    label 'gpu'
    cpus { job.settings.threads }
    memory { 1.GB * job.settings.memory * task.attempt }
    containerOptions { meta.binds }
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copy', overwrite: 'deep'

    input:
    tuple val(meta), val(job), path(imported, stageAs: 'Import/*'), path(ctf_refine, stageAs: 'CtfRefine/*'),
        path(polish, stageAs: 'Polish/*'), path(extract, stageAs: 'Extract/*'), path(particles, stageAs: 'Select/*'),
        path(refinement, stageAs: 'Refine3D/*')

    output:
    tuple val(meta), path("Orientations/${job.name}"), emit: job

    script:
    def directory = "Orientations/${job.name}"
    def settings = job.settings
    def gpu = settings.gpus ? "--gpu ${settings.gpus}" : ''
    """
    py2rely task split-tilts ${directory} --particles ${particles}/particles.star --tomograms ${job.tomograms} --most ${settings.most}
    for half in 1 2; do
        py2rely task relion --may-fail ${directory} -- relion_refine --K 1 --iter 1 --o ${directory}/run_half\$half \\
            --i ${directory}/half\$half.star --tomograms ${job.tomograms} ${job.motion ? "--trajectories ${job.motion}" : ''} \\
            --ref ${refinement}/run_half\$((3 - half))_class001_unfil.mrc --trust_ref_size --ini_high ${job.low_pass} --strict_highres_exp ${job.low_pass} \\
            --particle_diameter ${settings.diameter} --sym ${settings.symmetry} --j ${settings.threads} ${gpu} ${settings.options}
    done
    py2rely task check-orientations ${directory} --symmetry ${settings.symmetry}
    """

    stub:
    """
    py2rely task stub Orientations/${job.name} orientations.star
    """
}

// What it is handed, of a state at the end of its level. What is finer than the search can use is left out.
def orientation_inputs(meta, state) {
    def low_pass = [state.level.orientations.finest, json(state.postprocess / 'job.json').low_pass].max()
    def job = [name: state.level.name, settings: state.level.orientations.findAll { key, _value -> key != 'finest' }, low_pass: low_pass] + state.series.tables
    return [meta, job] + files_of(state.series) + [state.extract, state.particles, state.refinement]
}
