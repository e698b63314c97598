// Whether the classes of a classification are told apart: each half of a particle's tilts is given to averages of the other half set.
include { json_word } from '../../subworkflows/values'

process TEST_CLASSES {
    tag "${meta.label}${job.name}"
    label 'gpu'
    cpus { job.settings.threads }
    memory { 1.GB * job.settings.memory * task.attempt }
    containerOptions { meta.binds }
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copy', overwrite: 'deep'

    input:
    tuple val(meta), val(job), path(imported, stageAs: 'Import/*'), path(ctf_refine, stageAs: 'CtfRefine/*'),
        path(polish, stageAs: 'Polish/*'), path(extract, stageAs: 'Extract/*'), path(classification, stageAs: 'Class3D/*'),
        path(mask, stageAs: 'MaskCreate/*')

    output:
    tuple val(meta), path("ClassTest/${job.name}"), emit: job

    script:
    def directory = "ClassTest/${job.name}"
    def settings = job.settings
    def gpu = settings.gpus ? "--gpu ${settings.gpus}" : ''
    def refine = """relion_refine --iter 1 --tau2_fudge 1 --skip_align --tomograms ${job.series.tomograms} \\
            ${job.series.motion ? "--trajectories ${job.series.motion}" : ''} --trust_ref_size --ini_high \$low_pass --solvent_mask ${mask}/mask.mrc \\
            --particle_diameter ${settings.diameter} --sym ${settings.symmetry} --j ${settings.threads} ${gpu} ${settings.options}"""
    """
    py2rely task split-classes ${directory} --classification ${classification} --tomograms ${job.series.tomograms} --choice ${json_word(job.choice)}
    source ${directory}/settings.sh
    for average in \$averages; do
        py2rely task relion --may-fail ${directory} -- ${refine} \\
            --K 1 --i ${directory}/\$average.star --ref ${classification}/run_\${average%_*}.mrc --o ${directory}/run_\$average
    done
    for half in \$halves; do
        py2rely task relion --may-fail ${directory} -- ${refine} \\
            --K \$number --i ${directory}/half\$half.star --ref ${directory}/references\$half.star --o ${directory}/run_half\$half
    done
    py2rely task check-class-test ${directory}
    """

    stub:
    """
    py2rely task stub ClassTest/${job.name} votes.star
    """
}
