// Auto-refinement of two independent half sets.
include { files_of } from '../../subworkflows/states'
include { word } from '../../subworkflows/values'

process REFINE3D {
    tag "${meta.label}${job.name}"
    label 'gpu'
    cpus { job.settings.ranks * job.settings.threads }
    memory { 1.GB * job.settings.memory * task.attempt }
    containerOptions { meta.binds }
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copy', overwrite: 'deep'

    input:
    tuple val(meta), val(job), path(imported, stageAs: 'Import/*'), path(ctf_refine, stageAs: 'CtfRefine/*'),
        path(polish, stageAs: 'Polish/*'), path(extract, stageAs: 'Extract/*'), path(alignment, stageAs: 'Class3D/*'),
        path(selection, stageAs: 'Select/*'), path(reference, stageAs: 'Reference/*'), path(mask, stageAs: 'MaskCreate/*')

    output:
    tuple val(meta), path("Refine3D/${job.name}"), emit: job

    script:
    def directory = "Refine3D/${job.name}"
    def settings = job.settings
    def solvent = mask ? "--solvent_mask ${mask}/mask.mrc ${settings.solvent_correct_fsc ? '--solvent_correct_fsc' : ''}" : ''
    def ref = reference instanceof List ? reference[0] : reference // of a half map, RELION finds the other by its name
    def gpu = settings.gpus ? "--gpu ${settings.gpus}" : ''
    """
    py2rely task relion ${directory} -- mpirun -n ${settings.ranks} relion_refine_mpi --o ${directory}/run \\
        --i ${job.star} --tomograms ${job.series.tomograms} ${job.series.motion ? "--trajectories ${job.series.motion}" : ''} \\
        --ref ${ref} --trust_ref_size --ini_high ${job.low_pass} ${solvent} \\
        --particle_diameter ${settings.diameter} --sym ${settings.symmetry} --j ${settings.threads} ${gpu} \\
        ${settings.options}
    py2rely task check-refine ${directory} --particles ${job.star} --reference ${ref} ${settings.reason ? "--reason ${word(settings.reason)}" : ''}
    """

    stub:
    """
    py2rely task stub Refine3D/${job.name} run_data.star run_class001.mrc
    """
}

// What it is handed, of a state with name, settings, series, low_pass, star (the particles), the jobs that it lies in
// (extract, alignment, selection), reference (a map, or half maps) and mask_job.
def refine_inputs(meta, state) {
    def settings = state.settings.findAll { key, _value -> key != 'low_pass' }
    def job = [name: state.name, settings: settings, low_pass: state.low_pass, star: state.star, series: state.series.tables]
    return [meta, job] + files_of(state.series) + [state.extract, state.alignment, state.selection, state.reference, state.mask_job]
}
