// The mask from the particle's own density, and the FSC within it. The mask's soft edge is widened until the
// phase-randomised FSC at the reported resolution shows that the mask itself does not correlate. A mask that the user
// gives is brought onto the grid and used as it is.
process MASK_POSTPROCESS {
    tag "${meta.id} ${name}"
    label 'cpu_single'
    memory { 1.GB * level.mask.memory * task.attempt }
    containerOptions { meta.binds }
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copy'

    input:
    tuple val(meta), val(name), val(level), path(reconstruction, stageAs: 'Reconstruct/*'), path(given, stageAs: 'given/*')

    output:
    tuple val(meta), path("MaskCreate/${name}"), emit: mask
    tuple val(meta), path("PostProcess/${name}"), emit: job

    script:
    def mask = "MaskCreate/${name}"
    def job = "PostProcess/${name}"
    def maps = "${reconstruction}"
    def create = given
        ? "py2rely task given-mask '${given}' --like ${maps}/merged.mrc --output ${mask}"
        : """py2rely task relion ${mask} -- relion_mask_create --i ${maps}/merged.mrc --o ${mask}/mask.mrc \\
            --lowpass \$low_pass --ini_threshold \$threshold --extend_inimask ${level.mask.extend} \\
            --width_soft_edge \$edge ${level.mask.options}"""
    """
    py2rely task mask-threshold ${maps}/merged.mrc --half-map ${maps}/half1.mrc --diameter ${level.diameter} \\
        --output ${mask} --threshold '${level.mask.threshold}'
    source ${mask}/settings.sh
    for edge in ${given ? 0 : level.mask.edges.join(' ')}; do
        ${create}
        py2rely task relion ${job} -- relion_postprocess --i ${maps}/half1.mrc --mask ${mask}/mask.mrc \\
            --o ${job}/postprocess \$randomise ${level.postprocess.options}
        py2rely task mask-is-wide-enough ${job} --edge \$edge && break
    done
    py2rely task check-postprocess ${job} --mask ${mask}/mask.mrc --box ${level.size} --pixel-size ${level.pixel_size}
    """

    stub:
    """
    py2rely task stub MaskCreate/${name} mask.mrc
    py2rely task stub PostProcess/${name} postprocess.star postprocess.mrc
    """
}
