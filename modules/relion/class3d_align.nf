// Global alignment of the particles to the template: one class, correlation in the first iteration. Of one half set, or of all.
process CLASS3D_ALIGN {
    tag "${meta.label}${job.name - '_template'}"
    label 'gpu'
    cpus { job.settings.ranks * job.settings.threads }
    memory { 1.GB * job.settings.memory * task.attempt }
    containerOptions { meta.binds }
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copy', overwrite: 'deep'

    input:
    tuple val(meta), val(job), path(imported, stageAs: 'Import/*'), path(extract, stageAs: 'Extract/*'), path(reference, stageAs: 'Reference/*')

    output:
    tuple val(meta), path("Class3D/${job.name}"), emit: job

    script:
    def directory = "Class3D/${job.name}"
    def settings = job.settings
    def gpu = settings.gpus ? "--gpu ${settings.gpus}" : ''
    def particles = job.half ? "${directory}/particles.star" : "${extract}/particles.star"
    """
    ${job.half ? "py2rely task half-set ${extract}/particles.star --half ${job.half} --output ${directory}" : ''}
    py2rely task relion ${directory} -- mpirun -n ${settings.ranks} relion_refine_mpi --o ${directory}/run --K 1 \\
        --i ${particles} --tomograms Import/tilt_series/tomograms.star \\
        --ref ${reference} --trust_ref_size --ini_high ${settings.low_pass} \\
        --iter ${settings.iterations} --tau2_fudge ${settings.tau} \\
        --particle_diameter ${settings.diameter} --sym ${settings.symmetry} --j ${settings.threads} ${gpu} \\
        ${settings.options}
    py2rely task check-class3d ${directory} --iterations ${settings.iterations} --particles ${particles} --reference ${reference} ${job.half ? "--source ${extract}/particles.star" : ''}
    """

    stub:
    """
    py2rely task stub Class3D/${job.name} run_data.star run_class001.mrc
    """
}
