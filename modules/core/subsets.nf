// Random halves, quarters and eighths of the best map's particles, as far as their half sets go.
process SUBSETS {
    tag "${meta.label}${job.name - '_result'}"
    label 'core'
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copy', overwrite: 'deep'

    input:
    tuple val(meta), val(job), path(particles, stageAs: 'whole/*')

    output:
    tuple val(meta), path('Select/*'), emit: sets

    script:
    """
    py2rely task subsets ${particles}/particles.star --name ${job.name} --output Select
    """

    stub:
    """
    for part in 2 4 8; do py2rely task stub Select/${job.name}_of\$part particles.star; done
    """
}
