// The average of many tilt series: groups of them are back-projected side by side, and the sums made into one map.
process RECONSTRUCT_GROUP {
    tag "${meta.id} ${name} ${meta.group}"
    label 'cpu_parallel'
    cpus { settings.ranks * settings.threads }
    memory { 1.GB * settings.memory * task.attempt }
    containerOptions { meta.binds }

    input:
    tuple val(meta), val(name), val(settings), val(series), path(import_job, stageAs: 'Import/*'),
        path(ctf_refine, stageAs: 'CtfRefine/*'), path(polish, stageAs: 'Polish/*'), path(particles, stageAs: 'Select/*')

    output:
    tuple val(meta), path("Reconstruct/${name}"), emit: job

    script:
    def job = "Reconstruct/${name}"
    def threads = settings.ranks * settings.threads
    """
    py2rely task relion ${job} -- relion_tomo_reconstruct_particle --no_recon \\
        --t ${series.tomograms} ${series.motion ? "--mot ${series.motion}" : ''} --p ${particles}/particles.star --o ${job}/ \\
        --b ${settings.box} --crop ${settings.crop} --bin ${settings.binning} --sym ${settings.symmetry} \\
        --j ${threads} --j_out ${threads} --j_in 1 ${settings.options}
    """

    stub:
    """
    py2rely task stub Reconstruct/${name} run.out
    """
}

process MERGE_RECONSTRUCT {
    tag "${meta.id} ${name}"
    label 'cpu_parallel'
    cpus { settings.ranks * settings.threads }
    memory { 1.GB * settings.memory * task.attempt }
    containerOptions { meta.binds }
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copy'

    input:
    tuple val(meta), val(name), val(settings), val(series), path(import_job, stageAs: 'Import/*'),
        path(ctf_refine, stageAs: 'CtfRefine/*'), path(polish, stageAs: 'Polish/*'), path(particles, stageAs: 'Select/*'),
        path(groups, stageAs: 'groups/?/*')

    output:
    tuple val(meta), path("Reconstruct/${name}"), emit: job

    script:
    def job = "Reconstruct/${name}"
    def threads = settings.ranks * settings.threads
    """
    py2rely task merge-sums ${job} --groups groups --tomograms ${series.tomograms}
    py2rely task relion ${job} -- relion_tomo_reconstruct_particle --only_do_unfinished \\
        --t ${series.tomograms} ${series.motion ? "--mot ${series.motion}" : ''} --p ${particles}/particles.star --o ${job}/ \\
        --b ${settings.box} --crop ${settings.crop} --bin ${settings.binning} --sym ${settings.symmetry} \\
        --j ${threads} --j_out ${threads} --j_in 1 ${settings.options}
    py2rely task check-reconstruct ${job} --particles ${particles}/particles.star \\
        --box ${settings.crop > 0 ? settings.crop : settings.box} --pixel-size ${settings.pixel_size}
    """

    stub:
    """
    py2rely task stub Reconstruct/${name} merged.mrc half1.mrc half2.mrc
    """
}
