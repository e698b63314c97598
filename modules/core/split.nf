// One particle set per group of tilt series.
process SPLIT {
    tag "${meta.label}${job.name}"
    label 'core'

    input:
    tuple val(meta), val(job), path(imported, stageAs: 'Import/*'), path(particles, stageAs: 'Select/*')

    output:
    tuple val(meta), path('groups/*')

    script:
    """
    py2rely task split ${particles}/particles.star --tomograms Import/tilt_series/tomograms.star \\
        --groups ${job.groups} --output groups
    """

    stub:
    """
    for number in \$(seq ${job.groups}); do py2rely task stub groups/part_group\$number particles.star; done
    """
}
