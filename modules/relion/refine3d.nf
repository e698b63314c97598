// Auto-refinement of two independent half sets.
process REFINE3D {
    tag "${meta.id} ${name}"
    label 'gpu'
    cpus { settings.ranks * settings.threads }
    memory { 1.GB * settings.memory * task.attempt }
    containerOptions { meta.binds }
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copy'

    input:
    tuple val(meta), val(name), val(settings), val(low_pass), val(particles_star), val(series),
        path(import_job, stageAs: 'Import/*'), path(ctf_refine, stageAs: 'CtfRefine/*'), path(polish, stageAs: 'Polish/*'),
        path(extract, stageAs: 'Extract/*'), path(alignment, stageAs: 'Class3D/*'), path(particles, stageAs: 'Select/*'),
        path(reference, stageAs: 'Reference/*'), path(mask, stageAs: 'MaskCreate/*')

    output:
    tuple val(meta), path("Refine3D/${name}"), emit: job

    script:
    def job = "Refine3D/${name}"
    def solvent = mask ? "--solvent_mask ${mask}/mask.mrc --solvent_correct_fsc" : ''
    def ref = reference instanceof List ? reference[0] : reference // of a half map, RELION finds the other by its name
    def gpu = settings.gpus ? "--gpu ${settings.gpus}" : ''
    """
    py2rely task relion ${job} -- mpirun -n ${settings.ranks} relion_refine_mpi --o ${job}/run \\
        --i ${particles_star} --tomograms ${series.tomograms} ${series.motion ? "--trajectories ${series.motion}" : ''} \\
        --ref ${ref} --trust_ref_size --ini_high ${low_pass} ${solvent} \\
        --particle_diameter ${settings.diameter} --sym ${settings.symmetry} --j ${settings.threads} ${gpu} \\
        ${settings.options}
    py2rely task check-refine ${job} --particles ${particles_star} --reference ${ref}
    """

    stub:
    """
    py2rely task stub Refine3D/${name} run_data.star run_class001.mrc
    """
}
