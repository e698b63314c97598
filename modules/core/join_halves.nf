// The particles of two half sets that were aligned apart, and the map of each as the reference of its own.
process JOIN_HALVES {
    tag "${meta.label}${job.name - '_template'}"
    label 'core'
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copy', overwrite: 'deep'

    input:
    tuple val(meta), val(job), path(halves, stageAs: 'Class3D/*')

    output:
    tuple val(meta), path("Select/${job.name}"), emit: job

    script:
    """
    py2rely task join-halves ${halves.join(' ')} --output Select/${job.name}
    """

    stub:
    """
    py2rely task stub Select/${job.name} particles.star half1.mrc half2.mrc
    """
}
