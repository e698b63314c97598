// Slabs of tomograms around the picks, summed along z: images that RELION's Class2D takes. Tomograms are made one at a time,
// or are there.
include { json_word } from '../../subworkflows/values'

process SLABS {
    tag "${meta.label}${job.name}${meta.group ? " ${meta.group}" : ''}"
    label 'cpu_parallel'
    cpus { job.settings.cpus }
    memory { 1.GB * job.settings.memory * task.attempt }
    containerOptions { meta.binds }
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copy', overwrite: 'deep'

    input:
    tuple val(meta), val(job), path(imported, stageAs: 'Import/*'), path(particles, stageAs: 'Select/*'), path(tomograms, stageAs: 'tomograms/?/*')

    output:
    tuple val(meta), path("Extract/${job.name}"), emit: job

    script:
    """
    printf %s ${json_word(job.tomograms)} > tomograms.json
    py2rely task slabs Extract/${job.name} --particles ${particles}/particles.star --tilt-series ${job.series.tomograms} \\
        --tomograms tomograms.json --settings ${json_word(job.settings.settings)} ${meta.group ? '--group' : ''}
    """

    stub:
    """
    py2rely task stub Extract/${job.name} particles_relion.star
    """
}
