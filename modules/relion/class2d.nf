// 2D classification of slabs.
process CLASS2D {
    tag "${meta.label}${job.name}"
    label 'gpu'
    cpus { job.settings.threads }
    memory { 1.GB * job.settings.memory * task.attempt }
    containerOptions { meta.binds }
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copy', overwrite: 'deep'

    input:
    tuple val(meta), val(job), path(slabs, stageAs: 'Extract/*'), path(selection, stageAs: 'Select/*')

    output:
    tuple val(meta), path("Class2D/${job.name}"), emit: job

    script:
    def directory = "Class2D/${job.name}"
    def settings = job.settings
    def star = selection ? "${selection}/slabs.star" : "${slabs}/particles_relion.star"
    def gpu = settings.gpus ? "--gpu ${settings.gpus}" : ''
    """
    py2rely task relion ${directory} -- relion_refine --o ${directory}/run --i ${star} --K ${settings.classes} \\
        --iter ${settings.iterations} --j ${settings.threads} ${gpu} ${settings.options}
    py2rely task check-class2d ${directory} --iterations ${settings.iterations} --classes ${settings.classes} --particles ${star}
    """

    stub:
    """
    py2rely task stub Class2D/${job.name} run_it001_data.star run_it001_model.star run_it001_classes.mrcs
    """
}
