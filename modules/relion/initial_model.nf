// A model from the particles alone, by gradient descent, turned onto its symmetry axes.
process INITIAL_MODEL {
    tag "${meta.id} ${name}"
    label 'gpu'
    cpus { settings.threads }
    memory { 1.GB * settings.memory * task.attempt }
    containerOptions { meta.binds }
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copy'

    input:
    tuple val(meta), val(name), val(settings), path(import_job, stageAs: 'Import/*'), path(extract, stageAs: 'Extract/*')

    output:
    tuple val(meta), path("InitialModel/${name}"), emit: job

    script:
    def job = "InitialModel/${name}"
    def gpu = settings.gpus ? "--gpu ${settings.gpus}" : ''
    """
    py2rely task relion ${job} -- relion_refine --grad --denovo_3dref --o ${job}/run \\
        --i ${extract}/particles.star --tomograms Import/tilt_series/tomograms.star \\
        --iter ${settings.iterations} --K ${settings.classes} --tau2_fudge ${settings.tau} \\
        --particle_diameter ${settings.diameter} --sym ${settings.search_symmetry} --j ${settings.threads} ${gpu} \\
        ${settings.options}
    py2rely task final-model ${job} --iterations ${settings.iterations}
    py2rely task relion ${job} -- relion_align_symmetry --i ${job}/run_model.star --select_largest_class \\
        --o ${job}/initial_model.mrc --sym ${settings.symmetry} --apply_sym --nr_uniform ${settings.alignment_trials}
    py2rely task check-maps ${job} initial_model.mrc --like ${extract}
    """

    stub:
    """
    py2rely task stub InitialModel/${name} initial_model.mrc
    """
}
