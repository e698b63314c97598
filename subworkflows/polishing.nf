// Polishing at bin 1: cycles until they bring nothing any more; the best map is what counts. A data set leaves as soon as
// it is done; a process cannot be called twice, so each cycle is the same sub-workflow under a name of its own, and only as
// many are set up as the data sets can need.
include { CYCLE as CYCLE_1 } from './cycle'
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
    starts // [meta, polishing settings, level settings, series, particle set, half maps, mask job, post-process job]
    cycles // the most cycles that a data set has

    main:
    left = starts.map { meta, settings, level, series, particles, maps, mask, postprocess ->
        [meta, settings, level, 1, start(series, particles, maps, mask, postprocess)]
    }
    CYCLE_1(left)
    jobs = CYCLE_1.out.jobs
    left = CYCLE_1.out.states.map { row -> next(row) }.filter { row -> goes_on(row) }
    if (cycles > 1) {
        CYCLE_2(left)
        jobs = jobs.mix(CYCLE_2.out.jobs)
        left = CYCLE_2.out.states.map { row -> next(row) }.filter { row -> goes_on(row) }
    }
    if (cycles > 2) {
        CYCLE_3(left)
        jobs = jobs.mix(CYCLE_3.out.jobs)
        left = CYCLE_3.out.states.map { row -> next(row) }.filter { row -> goes_on(row) }
    }
    if (cycles > 3) {
        CYCLE_4(left)
        jobs = jobs.mix(CYCLE_4.out.jobs)
        left = CYCLE_4.out.states.map { row -> next(row) }.filter { row -> goes_on(row) }
    }
    if (cycles > 4) {
        CYCLE_5(left)
        jobs = jobs.mix(CYCLE_5.out.jobs)
        left = CYCLE_5.out.states.map { row -> next(row) }.filter { row -> goes_on(row) }
    }
    if (cycles > 5) {
        CYCLE_6(left)
        jobs = jobs.mix(CYCLE_6.out.jobs)
        left = CYCLE_6.out.states.map { row -> next(row) }.filter { row -> goes_on(row) }
    }
    if (cycles > 6) {
        CYCLE_7(left)
        jobs = jobs.mix(CYCLE_7.out.jobs)
        left = CYCLE_7.out.states.map { row -> next(row) }.filter { row -> goes_on(row) }
    }
    if (cycles > 7) {
        CYCLE_8(left)
        jobs = jobs.mix(CYCLE_8.out.jobs)
        left = CYCLE_8.out.states.map { row -> next(row) }.filter { row -> goes_on(row) }
    }
    if (cycles > 8) {
        CYCLE_9(left)
        jobs = jobs.mix(CYCLE_9.out.jobs)
        left = CYCLE_9.out.states.map { row -> next(row) }.filter { row -> goes_on(row) }
    }
    if (cycles > 9) {
        CYCLE_10(left)
        jobs = jobs.mix(CYCLE_10.out.jobs)
        left = CYCLE_10.out.states.map { row -> next(row) }.filter { row -> goes_on(row) }
    }

    emit:
    jobs = jobs
}

// What a cycle begins with: the tilt-series tables, particles and half maps that are built upon, the best post-processing
// so far, and whether this cycle changed or improved anything, and how many in a row did not.
def start(series, particles, maps, mask, postprocess) {
    return [series: series, particles: particles, maps: maps, mask: mask, postprocess: postprocess, best: postprocess, changed: false, improved: false, stale: 0]
}

def next(row) {
    def state = row[4]
    return row[0..2] + [row[3] + 1, state + [stale: state.improved ? 0 : state.stale + 1, unchanged: !state.changed, changed: false, improved: false]]
}

// Without a change the next cycle would only repeat this one.
def goes_on(row) {
    return row[3] <= row[1].cycles && row[4].stale < row[1].patience && !row[4].unchanged
}
