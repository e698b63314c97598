// One particle set per group of tilt series.
process SPLIT {
    tag "${meta.id}"
    label 'core'

    input:
    tuple val(meta), val(groups), path(import_job, stageAs: 'Import/*'), path(particles, stageAs: 'Select/*')

    output:
    tuple val(meta), path('groups/*')

    script:
    """
    py2rely task split ${particles}/particles.star --tomograms Import/tilt_series/tomograms.star \\
        --groups ${groups} --output groups
    """

    stub:
    """
    for number in \$(seq ${groups}); do py2rely task stub groups/part_group\$number particles.star; done
    """
}
