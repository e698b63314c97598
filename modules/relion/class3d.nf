// Classification of refined particles, by default without alignment.
process CLASS3D {
    tag "${meta.id} ${name}"
    label 'gpu'
    cpus { settings.ranks * settings.threads }
    memory { 1.GB * settings.memory * task.attempt }
    containerOptions { meta.binds }
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copy'

    input:
    tuple val(meta), val(name), val(settings), val(low_pass), val(series), path(import_job, stageAs: 'Import/*'),
        path(ctf_refine, stageAs: 'CtfRefine/*'), path(polish, stageAs: 'Polish/*'), path(extract, stageAs: 'Extract/*'),
        path(particles, stageAs: 'Select/*'), path(refinement, stageAs: 'Refine3D/*'), path(mask, stageAs: 'MaskCreate/*')

    output:
    tuple val(meta), path("Class3D/${name}"), emit: job

    script:
    def job = "Class3D/${name}"
    def gpu = settings.gpus ? "--gpu ${settings.gpus}" : ''
    def ref = "${refinement}/run_class001.mrc"
    """
    py2rely task relion ${job} -- mpirun -n ${settings.ranks} relion_refine_mpi --o ${job}/run --K ${settings.classes} \\
        --i ${particles}/particles.star --tomograms ${series.tomograms} ${series.motion ? "--trajectories ${series.motion}" : ''} \\
        --ref ${ref} --trust_ref_size --ini_high ${low_pass} --solvent_mask ${mask}/mask.mrc \\
        --iter ${settings.iterations} --tau2_fudge ${settings.tau} \\
        --particle_diameter ${settings.diameter} --sym ${settings.symmetry} --j ${settings.threads} ${gpu} \\
        ${settings.options}
    py2rely task check-classes ${job} --iterations ${settings.iterations} --classes ${settings.classes} \\
        --particles ${particles}/particles.star --reference ${ref}
    """

    stub:
    """
    py2rely task stub Class3D/${name} run_data.star run_class001.mrc
    """
}
