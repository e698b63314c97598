// All levels, one after the other: the first one from picks, then those that begin with oriented particles. A process
// cannot be called twice, so each rung is the same sub-workflow under a name of its own, and only as many are set up as the
// data sets can need. A data set that has no levels left passes by.
include { AVERAGE ; FIRST_LEVEL } from './level'
include { LEVEL as LEVEL_1 } from './level'
include { LEVEL as LEVEL_2 } from './level'
include { LEVEL as LEVEL_3 } from './level'
include { LEVEL as LEVEL_4 } from './level'
include { LEVEL as LEVEL_5 } from './level'
include { LEVEL as LEVEL_6 } from './level'
include { LEVEL as LEVEL_7 } from './level'
include { LEVEL as LEVEL_8 } from './level'

workflow LADDER {
    take:
    states // [meta, state]: plan, series, particles, mask, map
    needs // as of needs_of

    main:
    begin = states.map { meta, state -> [meta, state + [levels: state.plan.levels, source: state.particles]] }.branch { _meta, state ->
        refined: state.plan.start == 'polish'
        oriented: state.plan.oriented
        picks: true
    }
    left = begin.oriented
    jobs = channel.empty()
    if (needs.first) {
        FIRST_LEVEL(begin.picks, needs)
        left = left.mix(FIRST_LEVEL.out.states)
        jobs = jobs.mix(FIRST_LEVEL.out.jobs)
    }
    if (needs.rungs > 0) {
        LEVEL_1(left, needs)
        left = LEVEL_1.out.states
        jobs = jobs.mix(LEVEL_1.out.jobs)
    }
    if (needs.rungs > 1) {
        LEVEL_2(left, needs)
        left = LEVEL_2.out.states
        jobs = jobs.mix(LEVEL_2.out.jobs)
    }
    if (needs.rungs > 2) {
        LEVEL_3(left, needs)
        left = LEVEL_3.out.states
        jobs = jobs.mix(LEVEL_3.out.jobs)
    }
    if (needs.rungs > 3) {
        LEVEL_4(left, needs)
        left = LEVEL_4.out.states
        jobs = jobs.mix(LEVEL_4.out.jobs)
    }
    if (needs.rungs > 4) {
        LEVEL_5(left, needs)
        left = LEVEL_5.out.states
        jobs = jobs.mix(LEVEL_5.out.jobs)
    }
    if (needs.rungs > 5) {
        LEVEL_6(left, needs)
        left = LEVEL_6.out.states
        jobs = jobs.mix(LEVEL_6.out.jobs)
    }
    if (needs.rungs > 6) {
        LEVEL_7(left, needs)
        left = LEVEL_7.out.states
        jobs = jobs.mix(LEVEL_7.out.jobs)
    }
    if (needs.rungs > 7) {
        LEVEL_8(left, needs)
        left = LEVEL_8.out.states
        jobs = jobs.mix(LEVEL_8.out.jobs)
    }
    if (needs.polish_only) {
        AVERAGE(begin.refined.map { meta, state -> [meta, state + [level: state.levels[0], levels: [], name: "${state.levels[0].name}_result".toString()]] }, needs.groups)
        left = left.mix(AVERAGE.out.states)
        jobs = jobs.mix(AVERAGE.out.jobs)
    }
    left.subscribe { meta, state ->
        if (state.levels) {
            error("${meta.id} needs ${state.levels.size()} levels more than are set up, a fault of the pipeline's: please report it, with the parameters.")
        }
    }

    emit:
    states = left // after the last level: with particles, maps, mask_job and postprocess
    jobs = jobs // [meta, job]
}
