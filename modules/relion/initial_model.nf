// A model from the particles alone, by gradient descent, turned onto its symmetry axes.
process INITIAL_MODEL {
    tag "${meta.label}${job.name}"
    label 'gpu'
    cpus { job.settings.threads }
    memory { 1.GB * job.settings.memory * task.attempt }
    containerOptions { meta.binds }
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copy', overwrite: 'deep'

    input:
    tuple val(meta), val(job), path(imported, stageAs: 'Import/*'), path(extract, stageAs: 'Extract/*')

    output:
    tuple val(meta), path("InitialModel/${job.name}"), emit: job

    script:
    def directory = "InitialModel/${job.name}"
    def settings = job.settings
    def gpu = settings.gpus ? "--gpu ${settings.gpus}" : ''
    """
    py2rely task relion ${directory} -- relion_refine --grad --denovo_3dref --o ${directory}/run \\
        --i ${extract}/particles.star --tomograms Import/tilt_series/tomograms.star \\
        --iter ${settings.iterations} --K ${settings.classes} --tau2_fudge ${settings.tau} \\
        --particle_diameter ${settings.diameter} --sym ${settings.search_symmetry} --j ${settings.threads} ${gpu} \\
        ${settings.options}
    py2rely task final-model ${directory} --iterations ${settings.iterations}
    py2rely task relion ${directory} -- relion_align_symmetry --i ${directory}/run_model.star --select_largest_class \\
        --o ${directory}/initial_model.mrc --sym ${settings.symmetry} --apply_sym --nr_uniform ${settings.alignment_trials}
    py2rely task check-maps ${directory} initial_model.mrc --like ${extract}
    """

    stub:
    """
    py2rely task stub InitialModel/${job.name} initial_model.mrc
    """
}
