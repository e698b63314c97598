// Classification of refined particles, by default without alignment.
process CLASS3D {
    tag "${meta.label}${job.name}"
    label 'gpu'
    cpus { job.settings.ranks * job.settings.threads }
    memory { 1.GB * job.settings.memory * task.attempt }
    containerOptions { meta.binds }
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copy', overwrite: 'deep'

    input:
    tuple val(meta), val(job), path(imported, stageAs: 'Import/*'), path(ctf_refine, stageAs: 'CtfRefine/*'),
        path(polish, stageAs: 'Polish/*'), path(extract, stageAs: 'Extract/*'), path(particles, stageAs: 'Select/*'),
        path(refinement, stageAs: 'Refine3D/*'), path(mask, stageAs: 'MaskCreate/*')

    output:
    tuple val(meta), path("Class3D/${job.name}"), emit: job

    script:
    def directory = "Class3D/${job.name}"
    def settings = job.settings
    def gpu = settings.gpus ? "--gpu ${settings.gpus}" : ''
    def ref = "${refinement}/run_class001.mrc"
    """
    py2rely task relion ${directory} -- mpirun -n ${settings.ranks} relion_refine_mpi --o ${directory}/run --K ${settings.classes} \\
        --i ${particles}/particles.star --tomograms ${job.series.tomograms} ${job.series.motion ? "--trajectories ${job.series.motion}" : ''} \\
        --ref ${ref} --trust_ref_size --ini_high ${settings.low_pass} --solvent_mask ${mask}/mask.mrc \\
        --iter ${settings.iterations} --tau2_fudge ${settings.tau} \\
        --particle_diameter ${settings.diameter} --sym ${settings.symmetry} --j ${settings.threads} ${gpu} \\
        ${settings.options}
    py2rely task check-classes ${directory} --iterations ${settings.iterations} --classes ${settings.classes} \\
        --particles ${particles}/particles.star --reference ${ref}
    """

    stub:
    """
    py2rely task stub Class3D/${job.name} run_data.star run_class001.mrc
    """
}
