// One particle set per group of tilt series.
process SPLIT {
    tag "${meta.id} ${particles.name}"
    label 'core'

    input:
    tuple val(meta), val(groups), path(particles, stageAs: 'Select/*')

    output:
    tuple val(meta), path('groups/*')

    script:
    """
    py2rely task split ${particles}/particles.star --groups ${groups} --output groups
    """

    stub:
    """
    for number in \$(seq ${groups}); do py2rely task stub groups/${particles.name}_group\$number particles.star; done
    """
}
