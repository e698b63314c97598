// The best map sharpened: by the slope of its Guinier plot where the resolution allows that, or by a B-factor that is given.
// Where neither is so, there is no map, and the job says why.
include { json_word } from '../../subworkflows/values'

process SHARPEN {
    tag "${meta.label}${job.name - '_result'}"
    label 'cpu_single'
    memory { 1.GB * job.memory * task.attempt }
    containerOptions { meta.binds }
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copy', overwrite: 'deep'

    input:
    tuple val(meta), val(job), path(maps, stageAs: 'Reconstruct/*'), path(mask, stageAs: 'MaskCreate/*'), path(best, stageAs: 'PostProcess/*')

    output:
    tuple val(meta), path("PostProcess/${job.name}_sharpened"), emit: job

    script:
    def directory = "PostProcess/${job.name}_sharpened"
    """
    by=\$(py2rely task sharpen-by ${best} --settings ${json_word(job.settings)})
    if [ "\$by" ]; then
        py2rely task relion ${directory} -- relion_postprocess --i ${maps}/half1.mrc --mask ${mask}/mask.mrc \\
            --o ${directory}/postprocess \$(py2rely task randomise-from ${maps}) \$by ${job.settings.options}
    fi
    py2rely task check-sharpening ${directory} --best ${best} --settings ${json_word(job.settings)} \\
        --box ${job.size} --pixel-size ${job.pixel_size}
    """

    stub:
    """
    py2rely task stub PostProcess/${job.name}_sharpened postprocess.star postprocess.mrc --numbers ${json_word(
        [sharpening: [sharpened: true, b_factor: -100, source: 'given', why: 'a stub']])}
    """
}
