// The mask from the particle's own density, and the FSC within it. The mask's soft edge is widened until the
// phase-randomised FSC at the reported resolution shows that the mask itself does not correlate.
process MASK_POSTPROCESS {
    tag "${meta.id} bin${level.binning} ${purpose}"
    label 'cpu_single'
    containerOptions { meta.binds }
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copy'

    input:
    tuple val(meta), val(purpose), val(level), path(reconstruction, stageAs: 'Reconstruct/*')

    output:
    tuple val(meta), path("MaskCreate/bin${level.binning}_${purpose}"), emit: mask
    tuple val(meta), path("PostProcess/bin${level.binning}_${purpose}"), emit: job

    script:
    def mask = "MaskCreate/bin${level.binning}_${purpose}"
    def job = "PostProcess/bin${level.binning}_${purpose}"
    def maps = "${reconstruction}"
    """
    py2rely task mask-threshold ${maps}/merged.mrc --half-map ${maps}/half1.mrc --diameter ${level.diameter} \\
        --output ${mask} --threshold '${level.mask.threshold}'
    source ${mask}/settings.sh
    for edge in ${level.mask.edges.join(' ')}; do
        py2rely task relion ${mask} -- relion_mask_create --i ${maps}/merged.mrc --o ${mask}/mask.mrc \\
            --lowpass \$low_pass --ini_threshold \$threshold --extend_inimask ${level.mask.extend} \\
            --width_soft_edge \$edge ${level.mask.options}
        py2rely task relion ${job} -- relion_postprocess --i ${maps}/half1.mrc --mask ${mask}/mask.mrc \\
            --o ${job}/postprocess \$randomise ${level.postprocess.options}
        py2rely task mask-is-wide-enough ${job} --edge \$edge && break
    done
    py2rely task check-postprocess ${job} --mask ${mask}/mask.mrc --box ${level.size} --pixel-size ${level.pixel_size}
    """

    stub:
    """
    py2rely task stub MaskCreate/bin${level.binning}_${purpose} mask.mrc
    py2rely task stub PostProcess/bin${level.binning}_${purpose} postprocess.star postprocess.mrc
    """
}
