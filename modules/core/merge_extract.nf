// Extracted groups of tilt series, put together as one job.
include { json_word } from '../../subworkflows/values'

process MERGE_EXTRACT {
    tag "${meta.label}${job.name}"
    label 'core'
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'symlink', overwrite: true

    input:
    tuple val(meta), val(job), path(imported, stageAs: 'Import/*'), path(particles, stageAs: 'Select/*'), path(parts, stageAs: 'groups/?/*')

    output:
    tuple val(meta), path("Extract/${job.name}"), emit: job

    script:
    def directory = "Extract/${job.name}"
    def settings = job.settings
    """
    py2rely task merge-extract ${directory} --groups groups --particles ${particles}/particles.star \\
        --tomograms Import/tilt_series/tomograms.star --lost ${json_word(job.lost)}
    py2rely task check-extract ${directory} --particles ${particles}/particles.star \\
        ${settings.images == 'subtomograms' ? '--of-tomograms' : ''} \\
        --box ${settings.crop > 0 ? settings.crop : settings.box} --pixel-size ${settings.pixel_size}
    """

    stub:
    """
    py2rely task stub Extract/${job.name} particles.star
    """
}
