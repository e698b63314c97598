// The average of many tilt series: groups of them are back-projected side by side, and the sums made into one map.
process RECONSTRUCT_GROUP {
    tag "${meta.id} bin${settings.binning} ${purpose} ${meta.group}"
    label 'cpu_parallel'
    cpus { settings.ranks * settings.threads }
    memory { 1.GB * settings.memory * task.attempt }

    input:
    tuple val(meta), val(purpose), val(settings), path(import_job, stageAs: 'Import/*'), path(particles, stageAs: 'Select/*')

    output:
    tuple val(meta), path("Reconstruct/bin${settings.binning}_${purpose}"), emit: job

    script:
    def job = "Reconstruct/bin${settings.binning}_${purpose}"
    def threads = settings.ranks * settings.threads
    """
    py2rely task relion ${job} -- relion_tomo_reconstruct_particle --no_recon \\
        --t Import/tilt_series/tomograms.star --p ${particles}/particles.star --o ${job}/ \\
        --b ${settings.box} --crop ${settings.crop} --bin ${settings.binning} --sym ${settings.symmetry} \\
        --j ${threads} --j_out ${threads} --j_in 1 ${settings.options}
    """

    stub:
    """
    py2rely task stub Reconstruct/bin${settings.binning}_${purpose} run.out
    """
}

process MERGE_RECONSTRUCT {
    tag "${meta.id} bin${settings.binning} ${purpose}"
    label 'cpu_parallel'
    cpus { settings.ranks * settings.threads }
    memory { 1.GB * settings.memory * task.attempt }
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copy'

    input:
    tuple val(meta), val(purpose), val(settings), path(import_job, stageAs: 'Import/*'), path(particles, stageAs: 'Select/*'),
        path(groups, stageAs: 'groups/?/*')

    output:
    tuple val(meta), path("Reconstruct/bin${settings.binning}_${purpose}"), emit: job

    script:
    def job = "Reconstruct/bin${settings.binning}_${purpose}"
    def threads = settings.ranks * settings.threads
    """
    py2rely task merge-sums ${job} --groups groups --tomograms Import/tilt_series/tomograms.star
    py2rely task relion ${job} -- relion_tomo_reconstruct_particle --only_do_unfinished \\
        --t Import/tilt_series/tomograms.star --p ${particles}/particles.star --o ${job}/ \\
        --b ${settings.box} --crop ${settings.crop} --bin ${settings.binning} --sym ${settings.symmetry} \\
        --j ${threads} --j_out ${threads} --j_in 1 ${settings.options}
    py2rely task check-reconstruct ${job} --particles ${particles}/particles.star \\
        --box ${settings.crop > 0 ? settings.crop : settings.box} --pixel-size ${settings.pixel_size}
    """

    stub:
    """
    py2rely task stub Reconstruct/bin${settings.binning}_${purpose} merged.mrc half1.mrc half2.mrc
    """
}
