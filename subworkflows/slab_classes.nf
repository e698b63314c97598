// Before anything else: slabs around the picks are sorted by 2D classification, and the picks of the classes that are kept go
// on as they were. Where classes are waited for, nothing follows.
include { SLAB_CUTTING } from './steps'
include { CLASS2D ; CLASS2D as CLASS2D_AGAIN } from '../modules/relion/class2d'
include { SELECT_SLABS ; SELECT_SLABS as SELECT_SLABS_AGAIN } from '../modules/core/select_slabs'
include { named } from './states'

workflow SLAB_CLASSES {
    take:
    states // [meta, state]: plan, series, particles
    needs // as of needs_of

    main:
    all = states.branch { _meta, state ->
        asked: state.plan.slabs
        passed_on: true
    }
    SLAB_CUTTING(all.asked.map { meta, state -> [meta, state + [name: 'slabs', settings: state.plan.slabs.cut]] }, needs.groups)
    cut = named(all.asked.map { meta, state -> [meta, state + [rounds: state.plan.slabs.rounds, first: state.plan.slabs.rounds.size() > 1 ? 'slabs_first' : 'slabs']] }, SLAB_CUTTING.out, 'slabs')
    CLASS2D(cut.map { meta, state -> [meta, [name: state.first, settings: state.rounds[0]], state.slabs, []] })
    SELECT_SLABS(named(cut, CLASS2D.out, 'classes').map { meta, state -> [meta, choosing(state.plan.slabs, state.first), state.slabs, state.classes] })
    jobs = SLAB_CUTTING.out.mix(CLASS2D.out, SELECT_SLABS.out)
    chosen = named(cut, SELECT_SLABS.out, 'chosen').branch { _meta, state ->
        again: state.rounds.size() > 1
        done: true
    }
    ended = chosen.done
    if (needs.slabs_again) {
        CLASS2D_AGAIN(chosen.again.map { meta, state -> [meta, [name: 'slabs', settings: state.rounds[1]], state.slabs, state.chosen] })
        SELECT_SLABS_AGAIN(
            named(chosen.again, CLASS2D_AGAIN.out, 'classes').map { meta, state -> [meta, choosing(state.plan.slabs, 'slabs'), state.slabs, state.classes] }
        )
        ended = ended.mix(named(chosen.again.map { meta, state -> [meta, state.findAll { key, _value -> key != 'chosen' }] }, SELECT_SLABS_AGAIN.out, 'chosen'))
        jobs = jobs.mix(CLASS2D_AGAIN.out, SELECT_SLABS_AGAIN.out)
    }

    emit:
    states = all.passed_on.mix(
        ended.filter { _meta, state -> (state.chosen / 'particles.star').exists() }.map { meta, state -> [meta, state.subMap(['plan', 'series', 'mask', 'map']) + [particles: state.chosen]] }
    )
    jobs = jobs // [meta, job]
}

// What a choice is made by.
def choosing(slabs, name) {
    return [name: name] + slabs.subMap(['choice', 'keep_not_judged', 'diameter'])
}
