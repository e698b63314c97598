// The mask from the particle's own density, and the FSC within it. The mask's soft edge is widened until the
// phase-randomised FSC at the reported resolution shows that the mask itself does not correlate. A mask that the user
// gives is brought onto the grid and used as it is.
process POSTPROCESS {
    tag "${meta.label}${job.name - '_result'}"
    label 'cpu_single'
    memory { 1.GB * job.level.mask.memory * task.attempt }
    containerOptions { meta.binds }
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copy', overwrite: 'deep'

    input:
    tuple val(meta), val(job), path(reconstruction, stageAs: 'Reconstruct/*'), path(given, stageAs: 'given/*')

    output:
    tuple val(meta), path("MaskCreate/${job.name}"), emit: mask
    tuple val(meta), path("PostProcess/${job.name}"), emit: job

    script:
    def mask = "MaskCreate/${job.name}"
    def directory = "PostProcess/${job.name}"
    def maps = "${reconstruction}"
    def level = job.level
    def create = given
        ? "py2rely task given-mask given/* --like ${maps}/merged.mrc --output ${mask}"
        : """py2rely task relion ${mask} -- relion_mask_create --i ${maps}/merged.mrc --o ${mask}/mask.mrc \\
            --lowpass \$low_pass --ini_threshold \$threshold --extend_inimask ${level.mask.extend} \\
            --width_soft_edge \$edge ${level.mask.options}"""
    """
    py2rely task mask-threshold ${maps}/merged.mrc --half-map ${maps}/half1.mrc --diameter ${level.diameter} \\
        --output ${mask} --threshold '${level.mask.threshold}'
    source ${mask}/settings.sh
    for edge in ${given ? 0 : level.mask.edges.join(' ')}; do
        ${create}
        py2rely task relion ${directory} -- relion_postprocess --i ${maps}/half1.mrc --mask ${mask}/mask.mrc \\
            --o ${directory}/postprocess \$randomise ${level.postprocess.options}
        py2rely task mask-is-wide-enough ${directory} --edge \$edge && break
    done
    py2rely task check-postprocess ${directory} --mask ${mask}/mask.mrc --box ${level.size} --pixel-size ${level.pixel_size}
    """

    stub:
    """
    py2rely task stub MaskCreate/${job.name} mask.mrc
    py2rely task stub PostProcess/${job.name} postprocess.star postprocess.mrc
    """
}
