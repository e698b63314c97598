// What is found out about the best map of each data set, when everything else is done. No step waits for another one, but
// for the B-factor.
include { SHARPEN } from '../modules/relion/sharpen'
include { LOCAL_RESOLUTION } from '../modules/relion/local_resolution'
include { DIRECTIONS } from '../modules/core/directions'
include { COMPARE_TEMPLATE } from '../modules/core/compare_template'
include { SUBSETS } from '../modules/core/subsets'
include { PARTICLE_PLOT } from '../modules/relion/particle_plot'
include { RECONSTRUCTION } from './steps'
include { files_of ; named } from './states'
include { json } from './values'

workflow BEST_MAP {
    take:
    states // [meta, state]: plan, level, and of the best map: series, particles, maps, mask_job, postprocess
    needs // as of needs_of

    main:
    jobs = channel.empty()
    // By data set: the B-factor by which its map is sharpened, 0 for none.
    factors = states.filter { _meta, state -> !state.plan.map_analysis.sharpening }.map { meta, state -> [meta, state.plan.map_analysis.local_resolution?.given ?: 0] }
    if (needs.sharpening) {
        SHARPEN(asked(states, 'sharpening').map { meta, state -> [meta, about(state), state.maps, state.mask_job, state.postprocess] })
        jobs = jobs.mix(SHARPEN.out)
        factors = factors.mix(SHARPEN.out.map { meta, job -> [meta, json(job / 'job.json').sharpening.b_factor ?: 0] })
    }
    if (needs.local_resolution) {
        LOCAL_RESOLUTION(
            asked(states, 'local_resolution').join(factors).map { meta, state, factor -> [meta, about(state) + [b_factor: factor], state.maps, state.mask_job] }
        )
        jobs = jobs.mix(LOCAL_RESOLUTION.out)
    }
    if (needs.directions) {
        DIRECTIONS(
            asked(states, 'directions').map { meta, state ->
                [meta, about(state) + [tomograms: state.series.tables.tomograms]] + files_of(state.series) + [state.particles, state.maps, state.mask_job]
            }
        )
        jobs = jobs.mix(DIRECTIONS.out)
    }
    if (needs.compare_template) {
        COMPARE_TEMPLATE(
            asked(states, 'template').map { meta, state -> [meta, about(state), file(state.plan.reference, glob: false), state.maps, state.mask_job, state.postprocess] }
        )
        jobs = jobs.mix(COMPARE_TEMPLATE.out)
    }
    if (needs.particle_plot) {
        plotted = asked(states, 'particle_plot')
        SUBSETS(plotted.map { meta, state -> [meta, [name: state.postprocess.name], state.particles] })
        parts = plotted.join(SUBSETS.out).flatMap { meta, state, sets -> parts_of(meta, state, sets) }
        RECONSTRUCTION(parts, needs.groups)
        averages = RECONSTRUCTION.out
            .map { meta, job -> [groupKey(meta.findAll { key, _value -> !(key in ['part', 'parts']) }, meta.parts), job] }
            .groupTuple()
            .map { key, found -> [key.getGroupTarget(), found.sort { job -> job.name }] }
        PARTICLE_PLOT(
            named(named(plotted, SUBSETS.out, 'sets'), averages, 'averages').map { meta, state ->
                [meta, about(state), state.particles, state.mask_job, state.postprocess, state.sets, state.averages]
            }
        )
        jobs = jobs.mix(RECONSTRUCTION.out, PARTICLE_PLOT.out)
    }

    emit:
    jobs // [meta, job]
}

// The states of parts of the particles, each of which is averaged.
def parts_of(meta, state, sets) {
    def all = sets instanceof List ? sets : [sets]
    return all.collect { set -> [meta + [part: set.name, parts: all.size()], [name: set.name, settings: state.level.reconstruct, series: state.series, particles: set]] }
}

// The states whose plan has a step, with its settings.
def asked(states, step) {
    return states.filter { _meta, state -> state.plan.map_analysis[step] }.map { meta, state -> [meta, state + [settings: state.plan.map_analysis[step]]] }
}

// What every step is handed: the map's name, its grid, and the step's settings.
def about(state) {
    return [name: state.postprocess.name, settings: state.settings, memory: state.level.mask.memory] + state.level.subMap(['size', 'pixel_size'])
}
