// Polishing at bin 1: cycles until they bring nothing any more; the best map is what counts. A data set that is done passes
// by; a process cannot be called twice, so each cycle is the same sub-workflow under a name of its own, and only as many are
// set up as the data sets can need.
include { CYCLE as CYCLE_1 ; built } from './cycle'
include { CYCLE as CYCLE_2 } from './cycle'
include { CYCLE as CYCLE_3 } from './cycle'
include { CYCLE as CYCLE_4 } from './cycle'
include { CYCLE as CYCLE_5 } from './cycle'
include { CYCLE as CYCLE_6 } from './cycle'
include { CYCLE as CYCLE_7 } from './cycle'
include { CYCLE as CYCLE_8 } from './cycle'
include { CYCLE as CYCLE_9 } from './cycle'
include { CYCLE as CYCLE_10 } from './cycle'

workflow POLISHING {
    take:
    states // [meta, state] after the last level: plan, level, series, particles, maps, mask_job, postprocess
    needs // as of needs_of

    main:
    CYCLE_1(states.map { meta, state -> [meta, unpolished(state)] }, needs)
    jobs = CYCLE_1.out.jobs
    left = CYCLE_1.out.states
    if (needs.cycles > 1) {
        CYCLE_2(left, needs)
        left = CYCLE_2.out.states
        jobs = jobs.mix(CYCLE_2.out.jobs)
    }
    if (needs.cycles > 2) {
        CYCLE_3(left, needs)
        left = CYCLE_3.out.states
        jobs = jobs.mix(CYCLE_3.out.jobs)
    }
    if (needs.cycles > 3) {
        CYCLE_4(left, needs)
        left = CYCLE_4.out.states
        jobs = jobs.mix(CYCLE_4.out.jobs)
    }
    if (needs.cycles > 4) {
        CYCLE_5(left, needs)
        left = CYCLE_5.out.states
        jobs = jobs.mix(CYCLE_5.out.jobs)
    }
    if (needs.cycles > 5) {
        CYCLE_6(left, needs)
        left = CYCLE_6.out.states
        jobs = jobs.mix(CYCLE_6.out.jobs)
    }
    if (needs.cycles > 6) {
        CYCLE_7(left, needs)
        left = CYCLE_7.out.states
        jobs = jobs.mix(CYCLE_7.out.jobs)
    }
    if (needs.cycles > 7) {
        CYCLE_8(left, needs)
        left = CYCLE_8.out.states
        jobs = jobs.mix(CYCLE_8.out.jobs)
    }
    if (needs.cycles > 8) {
        CYCLE_9(left, needs)
        left = CYCLE_9.out.states
        jobs = jobs.mix(CYCLE_9.out.jobs)
    }
    if (needs.cycles > 9) {
        CYCLE_10(left, needs)
        left = CYCLE_10.out.states
        jobs = jobs.mix(CYCLE_10.out.jobs)
    }

    emit:
    states = left.map { meta, state -> [meta, state + state.best] } // of the best map
    jobs = jobs // [meta, job]
}

// What the first cycle begins with: what belongs to the best map so far, whether the cycle changed or improved anything, and
// how many in a row did not.
def unpolished(state) {
    return state + [polishing: state.plan.polishing, cycle: 1, best: built(state), changed: false, improved: false, stale: 0, unchanged: false]
}
